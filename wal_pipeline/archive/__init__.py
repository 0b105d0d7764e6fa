"""Our archive as data: layout, records, recovery window, retention, restore plan. No I/O, no clock."""
