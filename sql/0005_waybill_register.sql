-- Which process works on this schema: one row for the owner, one for a standby. `beats` rises while the process lives;
-- `promise_ms` is how long after its last beat the owner may still call. `directory` is the id of its data directory.
CREATE TABLE IF NOT EXISTS `waybill_register` (
  `role`       VARCHAR(16)     CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  `session`    VARCHAR(64)     CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  `directory`  VARCHAR(64)     CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  `epoch`      BIGINT UNSIGNED NOT NULL,
  `state`      VARCHAR(16)     CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  `host`       VARCHAR(255)    CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  `pid`        INT UNSIGNED    NOT NULL,
  `process`    VARCHAR(255)    CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  `command`    VARCHAR(64)     CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  `started_at` DATETIME(6)     NOT NULL,
  `beat_at`    DATETIME(6)     NOT NULL,
  `beats`      BIGINT UNSIGNED NOT NULL,
  `promise_ms` BIGINT UNSIGNED NOT NULL,
  `standby`    VARCHAR(64)     CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL DEFAULT '',
  PRIMARY KEY (`role`)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
