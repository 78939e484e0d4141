-- The mirror of the registered shops, so that an empty data directory can be rebuilt.
-- `sealed` holds the secret and the data key; without the master key it is noise.
CREATE TABLE IF NOT EXISTS `waybill_shops` (
  `id`         VARCHAR(64)      CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  `name`       TEXT             CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  `client_id`  VARCHAR(255)     CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  `account`    VARCHAR(255)     CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  `resources`  JSON             NOT NULL,
  `state`      VARCHAR(32)      CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  `reason`     TEXT             CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NULL,
  `created_at` DATETIME(6)      NOT NULL,
  `updated_at` DATETIME(6)      NOT NULL,
  `sealed`     BLOB             NOT NULL,
  PRIMARY KEY (`id`)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
