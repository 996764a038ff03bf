-- Units whose record was stored after the counter's own window had closed. What is decided by a window is decided at its end: what
-- comes later still counts, but can be told from what was known then.
ALTER TABLE counter ADD COLUMN after_close_units bigint NOT NULL DEFAULT 0;
