"""The commands of sclmkb-gen, a module per group."""
