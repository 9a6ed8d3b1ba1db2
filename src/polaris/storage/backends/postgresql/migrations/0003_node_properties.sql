-- Nodes by what their properties contain: values equal to others are looked up. Entries are made at once: what waits for
-- a place in the index would be searched one by one.
CREATE INDEX graph_nodes_contain ON graph_nodes USING gin ((properties::jsonb) jsonb_path_ops) WITH (fastupdate = off);
