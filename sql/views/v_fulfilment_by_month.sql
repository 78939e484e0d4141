-- Own fulfilment (FBR) against that of the marketplace (FBB), month by month (UTC). Needs: shipments.
CREATE OR REPLACE SQL SECURITY INVOKER VIEW v_fulfilment_by_month AS
SELECT
    s.shop_id,
    DATE_FORMAT(s.shipment_date_time, '%Y-%m') AS month,
    s.fulfilment_method,
    COUNT(DISTINCT s.shipment_id) AS shipments,
    SUM(i.quantity) AS quantity,
    SUM(i.quantity * i.unit_price) AS revenue,
    SUM(i.commission) AS commission
FROM shipments s
LEFT JOIN shipment_items i ON i.shop_id = s.shop_id AND i.shipment_id = s.shipment_id
GROUP BY s.shop_id, DATE_FORMAT(s.shipment_date_time, '%Y-%m'), s.fulfilment_method;
