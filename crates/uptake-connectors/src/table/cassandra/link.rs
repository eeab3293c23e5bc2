//! The connection to a cluster, and what its refusals mean.

use std::error::Error;
use std::sync::Arc;

use futures_util::TryStreamExt;
use scylla::client::execution_profile::ExecutionProfile;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::deserialize::row::DeserializeRow;
use scylla::errors::{
    DbError, ExecutionError, NextPageError, NextRowError, PagerExecutionError, PrepareError,
    RequestAttemptError, RequestError,
};
use scylla::policies::load_balancing::DefaultPolicy;
use scylla::policies::retry::DefaultRetryPolicy;
use scylla::serialize::row::SerializeRow;
use scylla::statement::prepared::PreparedStatement;

use super::CassandraOptions;
use crate::error::{FailureKind, RemoteError};
use crate::table::Result;

/// A session and how to speak of it.
pub(super) struct Link {
    pub(super) session: Session,
    pub(super) url: String,
    pub(super) keyspace: String,
    page_rows: i32,
}

impl Link {
    pub(super) async fn connect(
        hosts: &[String],
        keyspace: &str,
        options: &CassandraOptions,
    ) -> Result<Self> {
        let url = format!("cassandra://{}/{keyspace}", hosts.join(","));
        // What one node could not do another may, at once; longer pauses are the caller's.
        let mut balancing = DefaultPolicy::builder().token_aware(true);
        if let Some(datacenter) = &options.local_datacenter {
            balancing = balancing.prefer_datacenter(datacenter.clone());
        }
        let profile = ExecutionProfile::builder()
            .consistency(options.consistency)
            .request_timeout(Some(options.request_timeout))
            .load_balancing_policy(balancing.build())
            .retry_policy(Arc::new(DefaultRetryPolicy::new()))
            .build();
        let mut builder = SessionBuilder::new()
            .known_nodes(hosts)
            .connection_timeout(options.connect_timeout.min(std::time::Duration::from_secs(5)))
            .keyspaces_to_fetch([keyspace])
            .default_execution_profile_handle(profile.into_handle())
            .tls_context(options.tls()?);
        if let Some((user, password)) = &options.login {
            builder = builder.user(user, password);
        }
        let failed = |advice: String, kind, source| RemoteError {
            operation: "reach",
            url: url.clone(),
            advice,
            kind,
            source,
        };
        match tokio::time::timeout(options.connect_timeout, builder.build()).await {
            Ok(Ok(session)) => {
                Ok(Self { session, url, keyspace: keyspace.to_owned(), page_rows: options.page_rows })
            }
            Ok(Err(e)) => {
                // The driver has no other way to tell than its text.
                let said = e.to_string().to_lowercase();
                let (advice, kind) = if said.contains("authenti")
                    || said.contains("credentials")
                    || said.contains("password")
                {
                    (
                        "it refuses the user or the password; check the options user and password",
                        FailureKind::Permanent,
                    )
                } else {
                    (
                        "it does not answer; check that the server runs, its address and port, and TLS on both sides",
                        FailureKind::Transient,
                    )
                };
                Err(failed(advice.to_owned(), kind, Some(Box::new(e))).into())
            }
            Err(_) => {
                let advice = format!(
                    "it did not answer within {:?}; check its address, and whether it is overloaded",
                    options.connect_timeout
                );
                Err(failed(advice, FailureKind::Transient, None).into())
            }
        }
    }

    pub(super) fn error(
        &self,
        operation: &'static str,
        advice: String,
        kind: FailureKind,
        source: Option<Box<dyn Error + Send + Sync>>,
    ) -> RemoteError {
        RemoteError { operation, url: self.url.clone(), advice, kind, source }
    }

    pub(super) fn refused(&self, operation: &'static str, error: impl Into<Refused>) -> RemoteError {
        let Refused { kind, source } = error.into();
        let said = source.to_string();
        let advice = match kind {
            FailureKind::Permanent => format!("it refuses ({said})"),
            _ => format!("it is away or overloaded ({said})"),
        };
        self.error(operation, advice, kind, Some(source))
    }

    /// Runs a statement of the schema.
    pub(super) async fn plain(&self, cql: &str) -> Result<()> {
        let done = self.session.query_unpaged(cql, ()).await;
        done.map_err(|e| self.refused("make the tables of", e))?;
        Ok(())
    }

    pub(super) async fn prepare(&self, cql: &str) -> Result<PreparedStatement> {
        let mut statement =
            self.session.prepare(cql).await.map_err(|e| self.refused("prepare statements of", e))?;
        // Whatever we write, writing it again changes nothing.
        statement.set_is_idempotent(true);
        statement.set_page_size(self.page_rows);
        Ok(statement)
    }

    pub(super) async fn rows_or_nothing(
        &self,
        operation: &'static str,
        cql: &str,
        values: impl SerializeRow,
    ) -> Result<()> {
        let statement = self.prepare(cql).await?;
        let done = self.session.execute_unpaged(&statement, values).await;
        done.map_err(|e| self.refused(operation, e))?;
        Ok(())
    }

    /// All rows of a small answer to a statement that is not prepared yet.
    pub(super) async fn rows<T>(
        &self,
        operation: &'static str,
        cql: &str,
        values: impl SerializeRow,
    ) -> Result<Vec<T>>
    where
        T: for<'f, 'm> DeserializeRow<'f, 'm> + 'static,
    {
        let statement = self.prepare(cql).await?;
        let mut all = Vec::new();
        self.each(operation, &statement, values, |row| {
            all.push(row);
            Ok(())
        })
        .await?;
        Ok(all)
    }

    /// Calls `each` with the rows of an answer, a page in memory at a time.
    pub(super) async fn each<T>(
        &self,
        operation: &'static str,
        statement: &PreparedStatement,
        values: impl SerializeRow,
        mut each: impl FnMut(T) -> Result<()>,
    ) -> Result<()>
    where
        T: for<'f, 'm> DeserializeRow<'f, 'm> + 'static,
    {
        let pager = self.session.execute_iter(statement.clone(), values).await;
        let pager = pager.map_err(|e| self.refused(operation, e))?;
        let foreign = |e| {
            self.error(
                operation,
                "its tables are not those of uptake".into(),
                FailureKind::Permanent,
                Some(Box::new(e)),
            )
        };
        let mut stream = pager.rows_stream::<T>().map_err(foreign)?;
        while let Some(row) = stream.try_next().await.map_err(|e| self.refused(operation, e))? {
            each(row)?;
        }
        Ok(())
    }
}

/// What the driver said, and what it means.
pub(super) struct Refused {
    kind: FailureKind,
    source: Box<dyn Error + Send + Sync>,
}

fn attempt(error: &RequestAttemptError) -> FailureKind {
    use RequestAttemptError as E;
    match error {
        E::DbError(
            DbError::SyntaxError
            | DbError::Invalid
            | DbError::AlreadyExists { .. }
            | DbError::FunctionFailure { .. }
            | DbError::AuthenticationError
            | DbError::Unauthorized
            | DbError::ConfigError,
            _,
        )
        | E::SerializationError(_)
        | E::CqlRequestSerialization(_) => FailureKind::Permanent,
        // Of a server also: unavailable, timeouts, overload, failing replicas.
        _ => FailureKind::Transient,
    }
}

impl From<ExecutionError> for Refused {
    fn from(error: ExecutionError) -> Self {
        let kind = match &error {
            ExecutionError::BadQuery(_) => FailureKind::Permanent,
            ExecutionError::LastAttemptError(error) => attempt(error),
            ExecutionError::PrepareError(PrepareError::AllAttemptsFailed { first_attempt }) => {
                attempt(first_attempt)
            }
            _ => FailureKind::Transient,
        };
        Self { kind, source: Box::new(error) }
    }
}

impl From<PrepareError> for Refused {
    fn from(error: PrepareError) -> Self {
        let kind = match &error {
            PrepareError::AllAttemptsFailed { first_attempt } => attempt(first_attempt),
            _ => FailureKind::Transient,
        };
        Self { kind, source: Box::new(error) }
    }
}

fn page(error: &NextPageError) -> FailureKind {
    match error {
        NextPageError::RequestFailure(RequestError::LastAttemptError(error)) => attempt(error),
        NextPageError::RequestFailure(_) => FailureKind::Transient,
        _ => FailureKind::Permanent,
    }
}

impl From<PagerExecutionError> for Refused {
    fn from(error: PagerExecutionError) -> Self {
        let kind = match &error {
            PagerExecutionError::NextPageError(error) => page(error),
            PagerExecutionError::SerializationError(_) => FailureKind::Permanent,
            _ => FailureKind::Transient,
        };
        Self { kind, source: Box::new(error) }
    }
}

impl From<NextRowError> for Refused {
    fn from(error: NextRowError) -> Self {
        let kind = match &error {
            NextRowError::NextPageError(error) => page(error),
            _ => FailureKind::Permanent,
        };
        Self { kind, source: Box::new(error) }
    }
}
