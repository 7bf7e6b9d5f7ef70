"""Configuration: the schema, its composition from YAML and command line, its checks."""
