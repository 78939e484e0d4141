-- Items that still have to be shipped, the most urgent first. Needs: orders.
-- promised: the day that the buyer chose, else the last one of the promise. days_left: until the promised day; negative: late.
-- cancellation_request: the buyer asks not to ship it.
-- Those with FBB are shipped by the marketplace; fulfilment_method = 'FBR' leaves what is to be done.
CREATE OR REPLACE SQL SECURITY INVOKER VIEW v_open_orders AS
SELECT
    o.shop_id,
    o.order_id,
    i.order_item_id,
    i.ean,
    i.title,
    i.fulfilment_method,
    i.quantity - COALESCE(i.quantity_shipped, 0) - COALESCE(i.quantity_cancelled, 0) AS to_ship,
    COALESCE(i.exact_delivery_date, i.latest_delivery_date) AS promised,
    DATEDIFF(COALESCE(i.exact_delivery_date, i.latest_delivery_date), UTC_DATE()) AS days_left,
    i.cancellation_request,
    o.order_placed_date_time AS placed_at
FROM orders o
JOIN order_items i ON i.shop_id = o.shop_id AND i.order_id = o.order_id
WHERE i.quantity > COALESCE(i.quantity_shipped, 0) + COALESCE(i.quantity_cancelled, 0)
ORDER BY promised, o.order_placed_date_time;
