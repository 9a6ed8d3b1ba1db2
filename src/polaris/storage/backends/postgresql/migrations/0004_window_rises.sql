-- Of the numbers of a window also: the first and the last, the sum of the squares of the differences to their mean, and
-- the rises between neighbours. First, last and rises are those of a field: where a window has floats and integers of one
-- field, they stand with its floats, and its integers have none. An infinite `spread` or `rise` is unknown: the points have
-- to be asked. `climb`, the rises without their signs, is there where it is not the rise.
--
-- Summaries that were made before lack these: all are forgotten, and made anew from the points. Nobody can leave one
-- without a `spread` any more.
DELETE FROM ts_windows;
DELETE FROM ts_marks;
UPDATE ts_summaries SET frontier_us = -4611686018427387904, done_us = -4611686018427387904;
UPDATE ts_frontiers SET frontier_us = -4611686018427387904;

ALTER TABLE ts_windows
    ADD COLUMN first_us bigint,
    ADD COLUMN first float8,
    ADD COLUMN first_whole bigint,
    ADD COLUMN last_us bigint,
    ADD COLUMN last float8,
    ADD COLUMN last_whole bigint,
    ADD COLUMN spread float8 NOT NULL,
    ADD COLUMN rise float8,
    ADD COLUMN climb float8;
