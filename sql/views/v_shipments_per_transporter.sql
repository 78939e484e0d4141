-- How many shipments each transporter carried, how many are delivered, and how long that took. Needs: shipments.
-- mean_hours: from shipping to the first event of delivery, over the delivered ones.
CREATE OR REPLACE SQL SECURITY INVOKER VIEW v_shipments_per_transporter AS
SELECT
    s.shop_id,
    COALESCE(s.transporter_code, '(none)') AS transporter_code,
    COUNT(*) AS shipments,
    COUNT(d.delivered_at) AS delivered,
    ROUND(COUNT(d.delivered_at) / COUNT(*), 4) AS share_delivered,
    ROUND(AVG(TIMESTAMPDIFF(MINUTE, s.shipment_date_time, d.delivered_at)) / 60, 1) AS mean_hours
FROM shipments s
LEFT JOIN (
    SELECT shop_id, shipment_id, MIN(event_date_time) AS delivered_at
    FROM shipment_transport_events
    WHERE event_code IN ('DELIVERED_AT_CUSTOMER', 'DELIVERED_AT_NEIGHBOURS', 'PICKED_UP_AT_PICK_UP_POINT')
    GROUP BY shop_id, shipment_id
) d ON d.shop_id = s.shop_id AND d.shipment_id = s.shipment_id
GROUP BY s.shop_id, COALESCE(s.transporter_code, '(none)');
