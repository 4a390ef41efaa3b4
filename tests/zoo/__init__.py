"""A zoo of set-ups for `evaluate`: broken ones, which a good tool must see through, and sound ones, which it must not doubt."""
