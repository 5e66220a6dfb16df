"""Small models of the protocol, searched completely, breadth first. What they say and leave out is told in docs/model.md.

Nothing here touches a database, a store or a clock: whatever a clock may cause may happen at any moment.
"""
