-- Why things come back. Needs: returns.
-- handled: how many of the items have been dealt with. last_at: when the last of them was registered (UTC).
CREATE OR REPLACE SQL SECURITY INVOKER VIEW v_returns_by_reason AS
SELECT
    returned.shop_id,
    returned.main_reason,
    returned.detailed_reason,
    COUNT(*) AS items,
    SUM(returned.expected_quantity) AS quantity,
    COALESCE(SUM(returned.handled), 0) AS handled,
    MAX(returned.registration_date_time) AS last_at
-- Named first: made by a client that does not speak utf8mb4, MariaDB does not know the expressions again under ONLY_FULL_GROUP_BY.
FROM (
    SELECT
        r.shop_id,
        COALESCE(i.main_reason, '(none)') AS main_reason,
        COALESCE(i.detailed_reason, '(none)') AS detailed_reason,
        i.expected_quantity,
        i.handled,
        r.registration_date_time
    FROM returns r
    JOIN return_items i ON i.shop_id = r.shop_id AND i.return_id = r.return_id
) returned
GROUP BY returned.shop_id, returned.main_reason, returned.detailed_reason;
