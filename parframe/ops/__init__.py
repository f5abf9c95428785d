"""parframe's own operators on tensors: schemas, local forms and distributed forms.

Each module holds one operator. Rules (`parframe.rules`) name these functions by their paths, so
that plans are made without torch; the modules are imported when an operator is computed.
"""
