-- What each product brought and cost, week by week (ISO, UTC). Needs: shipments.
-- quantity: what was shipped. An order that comes in parts has its ordered quantity in each of them, so that is taken only where the
-- shipped one is missing (shipments before October 2025). revenue: with VAT. commission: as each shipment says it; unsure: whether parts
-- share it.
CREATE OR REPLACE SQL SECURITY INVOKER VIEW v_revenue_per_product_and_week AS
SELECT
    s.shop_id,
    i.ean,
    DATE_FORMAT(s.shipment_date_time, '%x-W%v') AS week,
    MAX(i.title) AS title,
    SUM(COALESCE(i.quantity_shipped, i.quantity)) AS quantity,
    SUM(COALESCE(i.quantity_shipped, i.quantity) * i.unit_price) AS revenue,
    SUM(i.commission) AS commission
FROM shipments s
JOIN shipment_items i ON i.shop_id = s.shop_id AND i.shipment_id = s.shipment_id
GROUP BY s.shop_id, i.ean, DATE_FORMAT(s.shipment_date_time, '%x-W%v');
