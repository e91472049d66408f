"""Raw media to arrays, arrays to HDF5 shards, shards to one manifest per dataset."""
