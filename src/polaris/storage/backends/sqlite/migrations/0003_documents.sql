-- When documents expire, for those that do. A document that is gone has no row here.
CREATE TABLE doc_expiries (
    collection INTEGER NOT NULL REFERENCES doc_collections (id),
    id TEXT NOT NULL,
    expires_us INTEGER NOT NULL,
    PRIMARY KEY (collection, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX doc_expiries_due ON doc_expiries (collection, expires_us);
