-- Shipments that came later than promised, or have not come though the day has passed. Needs: shipments.
-- promised: the earliest latest_delivery_date of its items. delivered_at: its first event of delivery, be it to a pick-up point,
-- where the customer may take his time; NULL while there is none. A shipment for an exact day, which only its order knows, has no promise.
-- last_event: its latest transport event; NULL: the transporter reports nothing, as with letters, so such a shipment may well have come.
-- days_late: from the promised day to that of the delivery, of the return to the sender, or to today. Days are taken in UTC, while promises
-- are Dutch days: what comes within the first hour or two after midnight counts for the day before.
CREATE OR REPLACE SQL SECURITY INVOKER VIEW v_late_shipments AS
SELECT
    late.shop_id,
    late.shipment_id,
    late.order_id,
    late.fulfilment_method,
    late.transporter_code,
    late.track_and_trace,
    late.shipped_at,
    late.promised,
    late.delivered_at,
    late.last_event,
    DATEDIFF(COALESCE(DATE(late.delivered_at), DATE(late.returned_at), UTC_DATE()), late.promised) AS days_late
FROM (
    SELECT
        s.shop_id,
        s.shipment_id,
        s.order_id,
        s.fulfilment_method,
        s.transporter_code,
        s.track_and_trace,
        s.shipment_date_time AS shipped_at,
        (
            SELECT MIN(i.latest_delivery_date)
            FROM shipment_items i
            WHERE i.shop_id = s.shop_id AND i.shipment_id = s.shipment_id
        ) AS promised,
        (
            SELECT MIN(e.event_date_time)
            FROM shipment_transport_events e
            WHERE e.shop_id = s.shop_id AND e.shipment_id = s.shipment_id
              AND e.event_code IN ('DELIVERED_AT_CUSTOMER', 'DELIVERED_AT_NEIGHBOURS', 'AT_PICK_UP_POINT', 'PICKED_UP_AT_PICK_UP_POINT')
        ) AS delivered_at,
        (
            SELECT MIN(e.event_date_time)
            FROM shipment_transport_events e
            WHERE e.shop_id = s.shop_id AND e.shipment_id = s.shipment_id AND e.event_code = 'RETURNED_TO_SENDER'
        ) AS returned_at,
        (
            SELECT e.event_code
            FROM shipment_transport_events e
            WHERE e.shop_id = s.shop_id AND e.shipment_id = s.shipment_id
            ORDER BY e.event_date_time DESC, e.position DESC
            LIMIT 1
        ) AS last_event
    FROM shipments s
) late
WHERE late.promised < COALESCE(DATE(late.delivered_at), DATE(late.returned_at), UTC_DATE());
