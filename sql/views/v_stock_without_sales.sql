-- Stock in the marketplace's warehouse of which nothing was shipped in what the tables hold. Needs: inventory, shipments.
CREATE OR REPLACE SQL SECURITY INVOKER VIEW v_stock_without_sales AS
SELECT n.shop_id, n.bsku, n.ean, n.title, n.regular_stock, n.graded_stock
FROM inventory n
WHERE COALESCE(n.regular_stock, 0) + COALESCE(n.graded_stock, 0) > 0
  AND n.no_longer_listed_at IS NULL
  AND NOT EXISTS (SELECT 1 FROM shipment_items i WHERE i.shop_id = n.shop_id AND i.ean = n.ean);
