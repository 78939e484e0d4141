-- The mirror of the streams' checkpoints. No column of it ever moves back.
CREATE TABLE IF NOT EXISTS `waybill_checkpoints` (
  `shop_id`      VARCHAR(64)  CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  `resource`     VARCHAR(64)  CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  `combination`  VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  `walked_at`    DATETIME(6)  NULL,
  `full_walk_at` DATETIME(6)  NULL,
  `newest`       DATETIME(6)  NULL,
  PRIMARY KEY (`shop_id`, `resource`, `combination`)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
