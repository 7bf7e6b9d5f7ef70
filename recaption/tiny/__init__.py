"""The tiny model: drawn scenes, the captions that describe them, and a model that learned both."""
