package awskinesis

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
)

// What the runbooks of docs/operating.md say of the input, where no other test does.

// restore puts back items as they were, and nothing else.
func (r *rig) restore(backup []awsfake.Item) {
	r.Helper()
	now, err := r.aws.Items(tableName)
	require.NoError(r, err)
	for _, item := range now {
		require.NoError(r, r.aws.DeleteItem(tableName, awsfake.Item{attrStream: item[attrStream], attrShard: item[attrShard]}))
	}
	for _, item := range backup {
		require.NoError(r, r.aws.PutItem(tableName, item))
	}
}

func TestTableRestoredFromABackupRepeatsWhatFollowedIt(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 3)
		r.put("orders", 0, 60)
		in := r.open(`streams: [ orders ]`)
		in.read(60)
		pass(10 * time.Second) // past a commit
		backup, err := r.aws.Items(tableName)
		require.NoError(r, err)
		r.put("orders", 60, 60)
		in.read(60)
		in.close()

		r.restore(backup) // with an owner that is no more
		in = r.open(`streams: [ orders ]`)
		begin := time.Now()
		require.ElementsMatch(r, numbers(60, 60), together(in.read(60)))
		require.LessOrEqual(r, time.Since(begin), 33*time.Second, "a lease period and a little")
		in.nothing(time.Minute)
	})
}

func TestRestoredPositionThatHasLeftTheStreamIsReadOnFromTheOldestRecord(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		r.put("orders", 0, 10)
		in := r.open(`streams: [ orders ]`)
		in.read(10)
		in.close()
		r.put("orders", 10, 10)
		pass(time.Hour)
		r.put("orders", 20, 10)
		require.NoError(r, r.aws.Trim("orders", time.Now().Add(-time.Minute)))
		in = r.open(`streams: [ orders ]`)
		require.Equal(r, numbers(20, 10), in.read(10)[shardName(0)])
		in.nothing(time.Minute)
	})
}

func TestDeploymentThatSharesATableByMistakeGivesAllBackWhenItStops(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 4)
		right := r.open(`streams: [ orders ]`)
		r.until(time.Minute, func() bool { return r.heldBy(right) == 4 })
		wrong := r.open(`streams: [ orders ]`)
		r.until(time.Minute, func() bool { return r.heldBy(wrong) == 2 })
		pass(2 * time.Second)
		require.NotEmpty(r, r.journal.logged(wrong.id()+" joined"), "which tells whoever looks")
		r.put("orders", 0, 100)
		wrong.close() // in order
		r.until(5*time.Second, func() bool { return r.heldBy(right) == 4 })
		require.ElementsMatch(r, numbers(0, 100), together(right.read(100)))
	})
}

func TestReadingGoesOnWhenTheKeyOfTheStreamIsThereAgain(t *testing.T) {
	for code, remedy := range map[string]string{
		"KMSAccessDeniedException": "Allow `kms:Decrypt` on that key",
		"KMSDisabledException":     "Enable it in KMS",
		"KMSInvalidStateException": "cancel the deletion of the key",
	} {
		t.Run(code, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.table()
				r.stream("orders", 2)
				r.put("orders", 0, 20)
				in := r.open(`streams: [ orders ]`)
				in.read(20)
				again := r.failReads(awsfake.Fault{Refuse: awsfake.NewError(code, "of the key")})
				r.put("orders", 20, 20)
				in.nothing(2 * time.Minute)
				require.NotEmpty(r, r.journal.logged(remedy))
				require.NotEmpty(r, r.journal.logged("The input is not ready"))
				again()
				require.ElementsMatch(r, numbers(20, 20), together(in.read(20)))
				pass(5 * time.Second)
				require.NotEmpty(r, r.journal.logged("The input is ready again"))
			})
		})
	}
}

// What a reset to the sequence number of a record leaves behind: that record is done.
func TestRecordIsSkippedByAPositionThatCoversIt(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		r.putTo("orders", 0, 0, 10)
		in := r.open(`{ streams: [ orders ], checkpoint_limit: 1 }`)
		for range 5 {
			in.ack(in.next())
		}
		poison := in.next()
		require.Equal(r, []string{"5"}, poison.contents())
		in.close()

		item, err := r.aws.Item(tableName, "orders", shardName(0))
		require.NoError(r, err)
		require.Empty(r, item[attrOwner].Text)
		item[attrSequence] = awsfake.String(poison.meta("kinesis_sequence_number"))
		require.NoError(r, r.aws.PutItem(tableName, item))
		in = r.open(`{ streams: [ orders ], checkpoint_limit: 1 }`)
		require.Equal(r, numbers(6, 4), in.read(4)[shardName(0)])
		in.nothing(10 * time.Second)
	})
}
