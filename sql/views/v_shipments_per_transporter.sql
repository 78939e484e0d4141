-- How many shipments each transporter carried, how many are delivered, and how long that took. Needs: shipments.
-- mean_hours, median_days: from shipping to the first event of delivery, over the delivered ones; the median is not moved by a few parcels
-- that took weeks.
CREATE OR REPLACE SQL SECURITY INVOKER VIEW v_shipments_per_transporter AS
SELECT
    carried.shop_id,
    carried.transporter_code,
    COUNT(*) AS shipments,
    COUNT(carried.delivered_at) AS delivered,
    ROUND(COUNT(carried.delivered_at) / COUNT(*), 4) AS share_delivered,
    ROUND(AVG(carried.minutes) / 60, 1) AS mean_hours,
    -- The one in the middle, or the mean of the two.
    ROUND(AVG(CASE WHEN 2 * carried.place BETWEEN carried.timed AND carried.timed + 2 THEN carried.minutes END) / 1440, 2) AS median_days
FROM (
    SELECT
        measured.*,
        CASE WHEN measured.minutes IS NOT NULL THEN
            ROW_NUMBER() OVER (PARTITION BY measured.shop_id, measured.transporter_code, measured.minutes IS NULL ORDER BY measured.minutes)
        END AS place,
        COUNT(measured.minutes) OVER (PARTITION BY measured.shop_id, measured.transporter_code) AS timed
    FROM (
        SELECT
            s.shop_id,
            COALESCE(s.transporter_code, '(none)') AS transporter_code,
            d.delivered_at,
            TIMESTAMPDIFF(MINUTE, s.shipment_date_time, d.delivered_at) AS minutes
        FROM shipments s
        LEFT JOIN (
            SELECT shop_id, shipment_id, MIN(event_date_time) AS delivered_at
            FROM shipment_transport_events
            WHERE event_code IN ('DELIVERED_AT_CUSTOMER', 'DELIVERED_AT_NEIGHBOURS', 'AT_PICK_UP_POINT', 'PICKED_UP_AT_PICK_UP_POINT')
            GROUP BY shop_id, shipment_id
        ) d ON d.shop_id = s.shop_id AND d.shipment_id = s.shipment_id
    ) measured
) carried
GROUP BY carried.shop_id, carried.transporter_code;
