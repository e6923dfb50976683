import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.URI;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Date;
import java.util.List;
import javax.net.ssl.TrustManager;
import javax.net.ssl.TrustManagerFactory;
import software.amazon.awssdk.auth.credentials.AwsBasicCredentials;
import software.amazon.awssdk.auth.credentials.StaticCredentialsProvider;
import software.amazon.awssdk.http.Protocol;
import software.amazon.awssdk.http.nio.netty.Http2Configuration;
import software.amazon.awssdk.http.nio.netty.NettyNioAsyncHttpClient;
import software.amazon.awssdk.regions.Region;
import software.amazon.awssdk.services.cloudwatch.CloudWatchAsyncClient;
import software.amazon.awssdk.services.dynamodb.DynamoDbAsyncClient;
import software.amazon.awssdk.services.kinesis.KinesisAsyncClient;
import software.amazon.kinesis.common.ConfigsBuilder;
import software.amazon.kinesis.common.InitialPositionInStream;
import software.amazon.kinesis.common.InitialPositionInStreamExtended;
import software.amazon.kinesis.common.StreamConfig;
import software.amazon.kinesis.common.StreamIdentifier;
import software.amazon.kinesis.coordinator.Scheduler;
import software.amazon.kinesis.leases.LeaseManagementConfig;
import software.amazon.kinesis.lifecycle.events.InitializationInput;
import software.amazon.kinesis.lifecycle.events.LeaseLostInput;
import software.amazon.kinesis.lifecycle.events.ProcessRecordsInput;
import software.amazon.kinesis.lifecycle.events.ShardEndedInput;
import software.amazon.kinesis.lifecycle.events.ShutdownRequestedInput;
import software.amazon.kinesis.metrics.NullMetricsFactory;
import software.amazon.kinesis.processor.FormerStreamsLeasesDeletionStrategy;
import software.amazon.kinesis.processor.MultiStreamTracker;
import software.amazon.kinesis.processor.RecordProcessorCheckpointer;
import software.amazon.kinesis.processor.ShardRecordProcessor;
import software.amazon.kinesis.processor.ShardRecordProcessorFactory;
import software.amazon.kinesis.processor.SingleStreamTracker;
import software.amazon.kinesis.processor.StreamTracker;
import software.amazon.kinesis.retrieval.KinesisClientRecord;
import software.amazon.kinesis.retrieval.RetrievalConfig;
import software.amazon.kinesis.retrieval.fanout.FanOutConfig;
import software.amazon.kinesis.retrieval.polling.PollingConfig;

/**
 * Reads streams with the Kinesis Client Library and prints what the library does, each as
 * a line of JSON; kcl_test.go tells the members. It ends with its standard input.
 *
 * <p>Arguments: the URL of the local AWS, the file of its certificate, the streams, the
 * table, the worker's name, "polling" or "fan-out", and where to begin: TRIM_HORIZON,
 * LATEST or a time such as 2026-01-02T03:04:05Z. A stream alone goes by its name; several,
 * or one that is read as one of several, by account:name:epoch with commas between them.
 */
public final class Reader {
    private Reader() {}

    public static void main(String[] args) throws Exception {
        URI url = URI.create(args[0]);
        TrustManager[] trusted = trust(Path.of(args[1]));
        StreamTracker streams = streams(args[2], position(args[6]));
        String table = args[3];
        String worker = args[4];
        boolean fanOut = args[5].equals("fan-out");

        Thread input = new Thread(Reader::endWithInput);
        input.setDaemon(true);
        input.start();

        StaticCredentialsProvider key =
                StaticCredentialsProvider.create(AwsBasicCredentials.create("AKIDEXAMPLE", "secret"));
        // As KinesisClientUtil of the library makes it, but for the trust.
        KinesisAsyncClient kinesis = KinesisAsyncClient.builder()
                .endpointOverride(url)
                .region(Region.US_EAST_1)
                .credentialsProvider(key)
                .httpClientBuilder(NettyNioAsyncHttpClient.builder()
                        .maxConcurrency(Integer.MAX_VALUE)
                        .http2Configuration(Http2Configuration.builder()
                                .initialWindowSize(512 * 1024)
                                .build())
                        .protocol(Protocol.HTTP2)
                        .tlsTrustManagersProvider(() -> trusted))
                .build();
        DynamoDbAsyncClient dynamodb = DynamoDbAsyncClient.builder()
                .endpointOverride(url)
                .region(Region.US_EAST_1)
                .credentialsProvider(key)
                .httpClientBuilder(NettyNioAsyncHttpClient.builder().tlsTrustManagersProvider(() -> trusted))
                .build();
        // The library asks for one, and calls nothing of it without metrics.
        CloudWatchAsyncClient cloudWatch = CloudWatchAsyncClient.builder()
                .endpointOverride(url)
                .region(Region.US_EAST_1)
                .credentialsProvider(key)
                .build();

        ConfigsBuilder configs =
                new ConfigsBuilder(streams, table, kinesis, dynamodb, cloudWatch, worker, new Printers());
        // Sooner than by default, so that a test that restarts it ends within a minute.
        LeaseManagementConfig leases = configs.leaseManagementConfig()
                .failoverTimeMillis(4000)
                .leaseAssignmentIntervalMillis(1000L)
                .dynamoDbLockBasedLeaderLeaseDurationInMillis(4000)
                .dynamoDbLockBasedLeaderHeartbeatPeriodInMillis(1000)
                .shardSyncIntervalMillis(200);
        // It looks for the metadata service of EC2 and ECS otherwise.
        leases.workerUtilizationAwareAssignmentConfig().disableWorkerMetrics(true);
        RetrievalConfig retrieval = configs.retrievalConfig();
        if (fanOut) {
            FanOutConfig config = new FanOutConfig(kinesis).applicationName(table);
            if (!streams.isMultiStream()) {
                config.streamName(args[2]);
            }
            retrieval.retrievalSpecificConfig(config);
        } else {
            PollingConfig config =
                    streams.isMultiStream() ? new PollingConfig(kinesis) : new PollingConfig(args[2], kinesis);
            retrieval.retrievalSpecificConfig(config.idleTimeBetweenReadsInMillis(200));
        }
        new Scheduler(
                        configs.checkpointConfig(),
                        configs.coordinatorConfig().parentShardPollIntervalMillis(200),
                        leases,
                        configs.lifecycleConfig(),
                        configs.metricsConfig().metricsFactory(new NullMetricsFactory()),
                        configs.processorConfig(),
                        retrieval)
                .run();
    }

    /** Ends this process when the one that started it is gone. */
    private static void endWithInput() {
        try {
            System.in.transferTo(OutputStream.nullOutputStream());
        } catch (IOException e) {
            // It is gone all the same.
        }
        Runtime.getRuntime().halt(1);
    }

    private static TrustManager[] trust(Path certificate) throws Exception {
        KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
        store.load(null, null);
        try (InputStream in = Files.newInputStream(certificate)) {
            store.setCertificateEntry(
                    "local AWS", CertificateFactory.getInstance("X.509").generateCertificate(in));
        }
        TrustManagerFactory factory = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        factory.init(store);
        return factory.getTrustManagers();
    }

    private static InitialPositionInStreamExtended position(String from) {
        if (from.equals("TRIM_HORIZON") || from.equals("LATEST")) {
            return InitialPositionInStreamExtended.newInitialPosition(InitialPositionInStream.valueOf(from));
        }
        return InitialPositionInStreamExtended.newInitialPositionAtTimestamp(Date.from(Instant.parse(from)));
    }

    private static StreamTracker streams(String names, InitialPositionInStreamExtended from) {
        if (!names.contains(":")) {
            return new SingleStreamTracker(names, from);
        }
        List<StreamConfig> configs = new ArrayList<>();
        for (String name : names.split(",")) {
            configs.add(new StreamConfig(StreamIdentifier.multiStreamInstance(name), from));
        }
        return new MultiStreamTracker() {
            @Override
            public List<StreamConfig> streamConfigList() {
                return configs;
            }

            @Override
            public FormerStreamsLeasesDeletionStrategy formerStreamsLeasesDeletionStrategy() {
                return new FormerStreamsLeasesDeletionStrategy.NoLeaseDeletionStrategy();
            }
        };
    }

    private static final class Printers implements ShardRecordProcessorFactory {
        @Override
        public ShardRecordProcessor shardRecordProcessor() {
            return new Printer("");
        }

        @Override
        public ShardRecordProcessor shardRecordProcessor(StreamIdentifier stream) {
            return new Printer(stream.streamName());
        }
    }

    /**
     * Prints a shard, and checkpoints at the fourth user record from the end of what it is
     * handed, which may be one in the middle of an aggregate.
     */
    private static final class Printer implements ShardRecordProcessor {
        private final String stream;
        private String shard;

        Printer(String stream) {
            this.stream = stream;
        }

        @Override
        public void initialize(InitializationInput input) {
            shard = input.shardId();
            say("began", input.extendedSequenceNumber().sequenceNumber(), input.extendedSequenceNumber()
                    .subSequenceNumber());
        }

        @Override
        public void processRecords(ProcessRecordsInput input) {
            List<KinesisClientRecord> records = input.records();
            for (KinesisClientRecord r : records) {
                say("record", r.sequenceNumber(), r.subSequenceNumber());
            }
            if (records.isEmpty()) {
                return;
            }
            KinesisClientRecord r = records.get(Math.max(0, records.size() - 4));
            checkpoint(() -> input.checkpointer().checkpoint(r.sequenceNumber(), r.subSequenceNumber()));
            say("checkpoint", r.sequenceNumber(), r.subSequenceNumber());
        }

        @Override
        public void leaseLost(LeaseLostInput input) {
            say("lost", "", 0);
        }

        @Override
        public void shardEnded(ShardEndedInput input) {
            checkpoint(() -> input.checkpointer().checkpoint());
            say("ended", "", 0);
        }

        @Override
        public void shutdownRequested(ShutdownRequestedInput input) {
            // Nobody requests it: the test ends this process.
        }

        private interface Checkpoint {
            void write() throws Exception;
        }

        private void checkpoint(Checkpoint checkpoint) {
            try {
                checkpoint.write();
            } catch (Exception e) {
                throw new IllegalStateException(e);
            }
        }

        private void say(String event, String sequence, long sub) {
            // Names of streams and shards, and numbers: nothing to escape.
            String line = String.format(
                    "{\"event\":\"%s\",\"stream\":\"%s\",\"shard\":\"%s\",\"sequence\":\"%s\",\"sub\":%d}%n",
                    event, stream, shard, sequence, sub);
            synchronized (System.out) {
                System.out.print(line);
                System.out.flush();
            }
        }
    }
}
