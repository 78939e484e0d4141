-- The fence: each write transaction begins with an UPDATE of this row that names its epoch. An owner that was replaced
-- has an older epoch, matches no row, and rolls back. `high_version` is the greatest version written so far.
-- `connection` is that of the last write, so that a successor can end one that stopped in the middle.
CREATE TABLE IF NOT EXISTS `waybill_fences` (
  `name`         VARCHAR(32)     CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  `epoch`        BIGINT UNSIGNED NOT NULL,
  `high_version` BIGINT UNSIGNED NOT NULL,
  `beats`        BIGINT UNSIGNED NOT NULL,
  `connection`   BIGINT UNSIGNED NULL,
  PRIMARY KEY (`name`)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
