-- How far `waybill schema replay` has come with each resource, for one form of its tables. `only_shop` is empty for a
-- replay of all shops.
CREATE TABLE IF NOT EXISTS `waybill_replays` (
  `resource`    VARCHAR(64)  CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  `only_shop`   VARCHAR(64)  CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL DEFAULT '',
  `fingerprint` CHAR(16)     CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  `shop_id`     VARCHAR(64)  CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  `id`          VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  `documents`   BIGINT UNSIGNED NOT NULL,
  `ended_at`    DATETIME(6)  NULL,
  PRIMARY KEY (`resource`, `only_shop`)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
