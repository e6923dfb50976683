# Of all who poll the stream together: this pipeline's own lag is kinesis_lag_milliseconds.
resource "aws_cloudwatch_metric_alarm" "iterator_age" {
  alarm_name          = "${var.stream_name}-iterator-age"
  alarm_description   = "Who polls the stream is far behind. What leaves the stream unread is lost."
  namespace           = "AWS/Kinesis"
  metric_name         = "GetRecords.IteratorAgeMilliseconds"
  dimensions          = { StreamName = var.stream_name }
  statistic           = "Maximum"
  period              = 60
  evaluation_periods  = 5
  threshold           = var.iterator_age_milliseconds
  comparison_operator = "GreaterThanThreshold"
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_actions
}

resource "aws_cloudwatch_metric_alarm" "read_throttling" {
  alarm_name          = "${var.stream_name}-read-throttling"
  alarm_description   = "Reads of the stream are throttled, because too many read it, or too much. See enhanced_fan_out and poll_period."
  namespace           = "AWS/Kinesis"
  metric_name         = "ReadProvisionedThroughputExceeded"
  dimensions          = { StreamName = var.stream_name }
  statistic           = "Average"
  period              = 60
  evaluation_periods  = 15
  threshold           = 0.1
  comparison_operator = "GreaterThanThreshold"
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_actions
}

resource "aws_cloudwatch_metric_alarm" "table_read_throttling" {
  alarm_name          = "${var.table_name}-read-throttling"
  alarm_description   = "Reads of the table of leases are throttled. Shards change hands late."
  namespace           = "AWS/DynamoDB"
  metric_name         = "ReadThrottleEvents"
  dimensions          = { TableName = aws_dynamodb_table.leases.name }
  statistic           = "Sum"
  period              = 60
  evaluation_periods  = 5
  threshold           = 0
  comparison_operator = "GreaterThanThreshold"
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_actions
}

resource "aws_cloudwatch_metric_alarm" "table_write_throttling" {
  alarm_name          = "${var.table_name}-write-throttling"
  alarm_description   = "Writes to the table of leases are throttled. Leases that cannot be renewed stop deliveries."
  namespace           = "AWS/DynamoDB"
  metric_name         = "WriteThrottleEvents"
  dimensions          = { TableName = aws_dynamodb_table.leases.name }
  statistic           = "Sum"
  period              = 60
  evaluation_periods  = 2
  threshold           = 0
  comparison_operator = "GreaterThanThreshold"
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_actions
}
