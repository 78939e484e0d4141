-- Shipments that came later than promised, or have not come though the day has passed. Needs: shipments.
-- promised: the earliest latest_delivery_date of its items. delivered_at: its first event of delivery (UTC), NULL while it is under way.
-- days_late counts days between the promised one and the delivery's, or today's.
CREATE OR REPLACE SQL SECURITY INVOKER VIEW v_late_shipments AS
SELECT
    late.*,
    DATEDIFF(COALESCE(DATE(late.delivered_at), UTC_DATE()), late.promised) AS days_late
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
              AND e.event_code IN ('DELIVERED_AT_CUSTOMER', 'DELIVERED_AT_NEIGHBOURS', 'PICKED_UP_AT_PICK_UP_POINT')
        ) AS delivered_at
    FROM shipments s
) late
WHERE late.promised < COALESCE(DATE(late.delivered_at), UTC_DATE());
