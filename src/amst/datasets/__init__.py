"""The datasets: one file each, from a raw folder to samples; and the splits."""
