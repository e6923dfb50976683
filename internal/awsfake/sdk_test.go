package awsfake

import "github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

// sdkItem is an item as the SDK's requests take it, of the types that tests use.
func sdkItem(item Item) map[string]types.AttributeValue {
	out := map[string]types.AttributeValue{}
	for name, v := range item {
		out[name] = sdkValue(v)
	}
	return out
}

func sdkValue(v Value) types.AttributeValue {
	switch v.Type {
	case typeString:
		return &types.AttributeValueMemberS{Value: v.Text}
	case typeNumber:
		return &types.AttributeValueMemberN{Value: v.Text}
	case typeBinary:
		return &types.AttributeValueMemberB{Value: []byte(v.Text)}
	case typeBool:
		return &types.AttributeValueMemberBOOL{Value: v.Bool}
	case typeNull:
		return &types.AttributeValueMemberNULL{Value: true}
	case typeList:
		var list []types.AttributeValue
		for _, e := range v.List {
			list = append(list, sdkValue(e))
		}
		return &types.AttributeValueMemberL{Value: list}
	case typeMap:
		return &types.AttributeValueMemberM{Value: sdkItem(v.Map)}
	}
	var texts []string
	var blobs [][]byte
	for _, m := range v.List {
		texts, blobs = append(texts, m.Text), append(blobs, []byte(m.Text))
	}
	switch v.Type {
	case typeStringSet:
		return &types.AttributeValueMemberSS{Value: texts}
	case typeNumberSet:
		return &types.AttributeValueMemberNS{Value: texts}
	}
	return &types.AttributeValueMemberBS{Value: blobs}
}
