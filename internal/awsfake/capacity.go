package awsfake

// writeUnitBytes is what one unit writes, from "DynamoDB read and write
// operations" of the developer guide.
const writeUnitBytes = 1 << 10

// writeUnits is what a write costs: the larger of the item before and after it,
// either of which may be nil.
func writeUnits(items ...Item) int {
	bytes := 0
	for _, item := range items {
		bytes = max(bytes, item.size())
	}
	return unitsOf(bytes, writeUnitBytes)
}

// unitsOf rounds up to whole units. Whatever moves nothing costs one.
func unitsOf(bytes, unitBytes int) int { return max(1, (bytes+unitBytes-1)/unitBytes) }
