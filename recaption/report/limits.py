"""How much a report shows, and how much it reads for that."""

SAMPLES = 240
MOST_SAMPLES = 5000
SHARDS = 2000
ROWS = 1_000_000
