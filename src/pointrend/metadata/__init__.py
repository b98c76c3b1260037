"""Tables that benchmarks publish: names, ids, colours. Nothing here computes; every part may import it."""
