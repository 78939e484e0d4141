-- Why things come back. Needs: returns.
-- handled: how many of the items have been dealt with. last_at: when the last of them was registered (UTC).
CREATE OR REPLACE SQL SECURITY INVOKER VIEW v_returns_by_reason AS
SELECT
    r.shop_id,
    COALESCE(i.main_reason, '(none)') AS main_reason,
    COALESCE(i.detailed_reason, '(none)') AS detailed_reason,
    COUNT(*) AS items,
    SUM(i.expected_quantity) AS quantity,
    SUM(i.handled) AS handled,
    MAX(r.registration_date_time) AS last_at
FROM returns r
JOIN return_items i ON i.shop_id = r.shop_id AND i.return_id = r.return_id
GROUP BY r.shop_id, COALESCE(i.main_reason, '(none)'), COALESCE(i.detailed_reason, '(none)');
