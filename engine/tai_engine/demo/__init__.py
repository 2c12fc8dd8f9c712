"""The embedded demonstration: photographs tagged and explained, prompts tuned on captions, and how right that is."""
