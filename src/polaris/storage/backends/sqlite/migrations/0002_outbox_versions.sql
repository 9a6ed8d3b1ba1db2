-- The version of an event's data when it was written: a later release brings older ones up to its own before publishing.
ALTER TABLE outbox ADD COLUMN version INTEGER NOT NULL DEFAULT 1;
