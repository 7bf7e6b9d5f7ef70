"""A task's data flow: shards are opened, samples prepared, engines fed, shards finished."""
