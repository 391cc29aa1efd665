"""What ``kit.description`` is made of: vocabulary, plain attributes, layouts, forms, canonical order, differences."""
