"""The only place where a framework is imported; one folder each, loaded when a model of that framework comes."""
