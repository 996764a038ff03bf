-- The last sequence that was written to the bucket: one that ends below it was restored from an older copy.
ALTER TABLE kv_bucket ADD COLUMN written bigint NOT NULL DEFAULT 0;
