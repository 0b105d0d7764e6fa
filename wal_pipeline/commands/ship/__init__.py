"""Ships the open segment to the stores, piece by piece."""
