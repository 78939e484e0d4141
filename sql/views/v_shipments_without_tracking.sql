-- Shipments of our own without a track and trace code, newest first. Needs: shipments.
-- Letters have none either; transporter_code distinguishes them.
CREATE OR REPLACE SQL SECURITY INVOKER VIEW v_shipments_without_tracking AS
SELECT s.shop_id, s.shipment_id, s.order_id, s.transporter_code, s.shipment_date_time AS shipped_at
FROM shipments s
WHERE s.fulfilment_method = 'FBR' AND (s.track_and_trace IS NULL OR s.track_and_trace = '')
ORDER BY s.shipment_date_time DESC;
