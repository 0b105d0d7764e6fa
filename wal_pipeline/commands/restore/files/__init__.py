"""Works on the files of a data directory one by one: compares, keeps, fetches and proves them, many at a time."""
