"""What a prompt asks for, and how likely a model answers it well: pure functions over an artefact."""
