#!/usr/bin/env bash
# grain 0.2.18. ShardOptions with drop_remainder=False promises to give the remainder to the first shards. DataLoader with an IndexSampler
# reads records // shards of each shard instead. Record 3 of 10 is then in no shard of 3, and nothing reports it.
# WindowShuffleMapDataset promises a one-to-one mapping. With 10 records and windows of 4, its last window reaches past the end.
# Records 8 and 9 never come, and 0 and 1 come twice. Both matter where each piece must be read once, as in an evaluation.
# Expected output: shards [0, 1, 2], [4, 5, 6], [7, 8, 9], and a window shuffle without 8 and 9.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check grain==0.2.18 2>/dev/null
"$folder/venv/bin/python" -W ignore - <<'END'
import importlib.metadata, sys
import grain

records, count = range(10), 3

def shard(index):
    options = grain.sharding.ShardOptions(shard_index=index, shard_count=count, drop_remainder=False)
    sampler = grain.samplers.IndexSampler(num_records=len(records), num_epochs=1, shuffle=False, shard_options=options)
    return [int(record) for record in grain.DataLoader(data_source=records, sampler=sampler, worker_count=0)]

shards = [shard(index) for index in range(count)]
source = grain.MapDataset.source(list(records))
shuffled = list(grain.experimental.WindowShuffleMapDataset(source, window_size=4, seed=1))
missing = [sorted(set(records) - set(read)) for read in (sum(shards, []), shuffled)]
print("grain", importlib.metadata.version("grain"))
print("one epoch of 3 shards:", shards, "without", missing[0])
print("windows of 4:", shuffled, "without", missing[1])
sys.exit(missing != [[3], [8, 9]] or sorted(shuffled) != [0, 0, 1, 1, 2, 3, 4, 5, 6, 7])
END
