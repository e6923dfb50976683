package trial_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	kinesistypes "github.com/aws/aws-sdk-go-v2/service/kinesis/types"
)

// The ways in which a reader can behave.
const (
	honest    = "honest"
	loser     = "loser"     // leaves one record out
	shuffler  = "shuffler"  // prints each page backwards
	rewinder  = "rewinder"  // starts at the oldest record, whatever is stored
	forgetful = "forgetful" // stores no checkpoint at its end
	holder    = "holder"    // leaves its name behind at its end
	quitter   = "quitter"   // fails on the way
	silent    = "silent"    // prints nothing
	deaf      = "deaf"      // fails when it is told to stop
)

// reader is a simple consumer that the trials here run as a process: it prints
// what it reads, and stores how far it came when it is told to stop.
type reader struct {
	manner   string
	kinesis  *kinesis.Client
	dynamodb *dynamodb.Client
	read     map[string]string // last sequence number of each shard
	iterator map[string]*string
	printed  int
}

func runReader(manner string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	conf := aws.Config{
		Region:       os.Getenv("REGION"),
		BaseEndpoint: aws.String(os.Getenv("ENDPOINT")),
		Credentials:  credentials.NewStaticCredentialsProvider(os.Getenv("AWS_ACCESS_KEY_ID"), os.Getenv("AWS_SECRET_ACCESS_KEY"), ""),
	}
	r := &reader{
		manner:   manner,
		kinesis:  kinesis.NewFromConfig(conf),
		dynamodb: dynamodb.NewFromConfig(conf),
		read:     map[string]string{},
		iterator: map[string]*string{},
	}
	if err := r.load(ctx); err != nil {
		return err
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			if manner == deaf {
				return errors.New("too busy to stop")
			}
			return r.store(context.WithoutCancel(ctx))
		case <-tick.C:
			if err := r.pass(context.WithoutCancel(ctx)); err != nil {
				return err
			}
		}
	}
}

// load makes the table when it is missing, and reads the checkpoints.
func (r *reader) load(ctx context.Context) error {
	_, err := r.dynamodb.CreateTable(ctx, &dynamodb.CreateTableInput{
		TableName:   aws.String(os.Getenv("TABLE")),
		BillingMode: types.BillingModePayPerRequest,
		AttributeDefinitions: []types.AttributeDefinition{
			{AttributeName: aws.String("StreamID"), AttributeType: types.ScalarAttributeTypeS},
			{AttributeName: aws.String("ShardID"), AttributeType: types.ScalarAttributeTypeS},
		},
		KeySchema: []types.KeySchemaElement{
			{AttributeName: aws.String("StreamID"), KeyType: types.KeyTypeHash},
			{AttributeName: aws.String("ShardID"), KeyType: types.KeyTypeRange},
		},
	})
	if _, exists := errors.AsType[*types.ResourceInUseException](err); err != nil && !exists {
		return err
	}
	if r.manner == rewinder {
		return nil
	}
	page, err := r.dynamodb.Scan(ctx, &dynamodb.ScanInput{TableName: aws.String(os.Getenv("TABLE")), ConsistentRead: aws.Bool(true)})
	if err != nil {
		return err
	}
	for _, item := range page.Items {
		r.read[item["ShardID"].(*types.AttributeValueMemberS).Value] = item["SequenceNumber"].(*types.AttributeValueMemberS).Value
	}
	return nil
}

// pass prints a page of each shard whose parent is read to the end.
func (r *reader) pass(ctx context.Context) error {
	list, err := r.kinesis.ListShards(ctx, &kinesis.ListShardsInput{StreamName: aws.String(os.Getenv("STREAM"))})
	if err != nil {
		return err
	}
	for _, shard := range list.Shards {
		id := aws.ToString(shard.ShardId)
		if parent := aws.ToString(shard.ParentShardId); parent != "" {
			if it, begun := r.iterator[parent]; !begun || it != nil {
				continue
			}
		}
		it, begun := r.iterator[id]
		if !begun {
			if it, err = r.begin(ctx, id); err != nil {
				return err
			}
		}
		if it == nil {
			continue
		}
		page, err := r.kinesis.GetRecords(ctx, &kinesis.GetRecordsInput{ShardIterator: it})
		if err != nil {
			return err
		}
		r.iterator[id] = page.NextShardIterator
		if err := r.print(id, page.Records); err != nil {
			return err
		}
	}
	return nil
}

func (r *reader) begin(ctx context.Context, shard string) (*string, error) {
	in := &kinesis.GetShardIteratorInput{
		StreamName:        aws.String(os.Getenv("STREAM")),
		ShardId:           aws.String(shard),
		ShardIteratorType: kinesistypes.ShardIteratorTypeTrimHorizon,
	}
	if last := r.read[shard]; last != "" {
		in.ShardIteratorType = kinesistypes.ShardIteratorTypeAfterSequenceNumber
		in.StartingSequenceNumber = aws.String(last)
	}
	out, err := r.kinesis.GetShardIterator(ctx, in)
	if err != nil {
		return nil, err
	}
	return out.ShardIterator, nil
}

func (r *reader) print(shard string, records []kinesistypes.Record) error {
	if len(records) == 0 || r.manner == silent {
		return nil
	}
	r.read[shard] = aws.ToString(records[len(records)-1].SequenceNumber)
	if r.manner == shuffler {
		slices.Reverse(records)
	}
	for _, record := range records {
		r.printed++
		if r.manner == quitter && r.printed == 50 {
			return errors.New("enough of it")
		}
		if r.manner == loser && r.printed == 50 {
			continue
		}
		fmt.Println(shard, aws.ToString(record.SequenceNumber))
	}
	return nil
}

func (r *reader) store(ctx context.Context) error {
	if r.manner == forgetful {
		return nil
	}
	for shard, sequence := range r.read {
		item := map[string]types.AttributeValue{
			"StreamID":       &types.AttributeValueMemberS{Value: os.Getenv("STREAM")},
			"ShardID":        &types.AttributeValueMemberS{Value: shard},
			"SequenceNumber": &types.AttributeValueMemberS{Value: sequence},
		}
		if r.manner == holder {
			item["ClientID"] = &types.AttributeValueMemberS{Value: "reader"}
		}
		if _, err := r.dynamodb.PutItem(ctx, &dynamodb.PutItemInput{TableName: aws.String(os.Getenv("TABLE")), Item: item}); err != nil {
			return err
		}
	}
	return nil
}
