-- The sources whose rows this schema has, in order: the last one is the present one. The first one is also where the
-- secrets in `waybill_shops` were proved that do not note it; it has no address if that is not known. A process that is
-- configured for another source than the present one writes nothing here and takes no shop over (`waybill source move`).
CREATE TABLE IF NOT EXISTS `waybill_installation` (
  `number`      INT UNSIGNED NOT NULL,
  `api`         TEXT         CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NULL,
  `login`       TEXT         CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NULL,
  `recorded_at` DATETIME(6)  NOT NULL,
  PRIMARY KEY (`number`)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
