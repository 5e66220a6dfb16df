-- Letting go of a blob asks every table that may name it. With NO ACTION PostgreSQL asks twice, first whether another row
-- has taken the deleted one's key, which here can never be: keys are not reused. RESTRICT asks once, and nothing else
-- differs, for none of these keys is deferrable. Measured: 8 keys, 10,000 blobs, 1.14 s of processor time before, 0.79 s after.
ALTER TABLE comparison
    DROP CONSTRAINT comparison_report_is_a_blob,
    ADD CONSTRAINT comparison_report_is_a_blob FOREIGN KEY (report_id) REFERENCES blob ON DELETE RESTRICT;
ALTER TABLE pin
    DROP CONSTRAINT pin_blob_is_a_blob,
    ADD CONSTRAINT pin_blob_is_a_blob FOREIGN KEY (blob_id) REFERENCES blob ON DELETE RESTRICT;
ALTER TABLE snapshot
    DROP CONSTRAINT snapshot_manifest_is_a_blob,
    ADD CONSTRAINT snapshot_manifest_is_a_blob FOREIGN KEY (manifest_id) REFERENCES blob ON DELETE RESTRICT;
ALTER TABLE snapshot_image
    DROP CONSTRAINT snapshot_image_is_a_blob,
    ADD CONSTRAINT snapshot_image_is_a_blob FOREIGN KEY (image_id) REFERENCES blob ON DELETE RESTRICT;
ALTER TABLE comparison_image
    DROP CONSTRAINT comparison_image_mask_is_a_blob,
    ADD CONSTRAINT comparison_image_mask_is_a_blob FOREIGN KEY (mask_id) REFERENCES blob ON DELETE RESTRICT;
ALTER TABLE object
    DROP CONSTRAINT object_is_a_blob,
    ADD CONSTRAINT object_is_a_blob FOREIGN KEY (blob_id) REFERENCES blob ON DELETE RESTRICT;
ALTER TABLE build
    DROP CONSTRAINT build_file_is_a_blob,
    DROP CONSTRAINT build_manifest_is_a_blob,
    ADD CONSTRAINT build_file_is_a_blob FOREIGN KEY (file_id) REFERENCES blob ON DELETE RESTRICT,
    ADD CONSTRAINT build_manifest_is_a_blob FOREIGN KEY (manifest_id) REFERENCES blob ON DELETE RESTRICT;

-- A tombstone is claimed by an update; half-empty pages let its next version lie beside it, so that no index is touched.
-- Measured: claiming 10,000 takes 0.16 s of processor time instead of 0.42 s.
ALTER TABLE tombstone SET (fillfactor = 50);
