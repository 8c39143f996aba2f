"""What a prompt asks for, and how likely it is that a model answers it well."""
