-- The state that an owner leaves for its standby, in sealed parts; empty otherwise.
CREATE TABLE IF NOT EXISTS `waybill_handover` (
  `epoch` BIGINT UNSIGNED NOT NULL,
  `part`  INT UNSIGNED    NOT NULL,
  `data`  MEDIUMBLOB      NOT NULL,
  PRIMARY KEY (`epoch`, `part`)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
