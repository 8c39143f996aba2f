"""From outcomes of models on prompts to the artefact that ships. Needs numpy and scipy."""
