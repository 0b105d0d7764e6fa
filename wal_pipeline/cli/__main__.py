"""``python -m wal_pipeline.cli``, the same as ``wal-pipeline``."""

from wal_pipeline.cli.main import main

if __name__ == "__main__":
    main()
