//! Runs a script in a workspace of a repository, shows what it prints, commits and pushes what it
//! changed.
//!
//! Usage: `example REPOSITORY SCRIPT`, with COVE_TOKEN, and COVE_ADDRESS unless it is
//! 127.0.0.1:7420; `https://host:port` is spoken to with TLS.

use std::{
    env,
    error::Error,
    io::{self, Write, stdout},
    process::ExitCode,
};

use cove_example::proto::cove::{
    executor::v1::{Execution, ExecutionSpec, Exit, exit::Reason},
    gateway::v1::{
        CreateCommitRequest, CreateWorkspaceRequest, DeleteWorkspaceRequest, PushBranchRequest,
        StartExecutionRequest, Workspace,
    },
    git::v1::Commit,
    registry::v1::EnvironmentSpec,
};
use cove_example::{Cove, again, once, reason};
use tonic::Status;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let (Some(url), Some(script), None) = (arguments.next(), arguments.next(), arguments.next())
    else {
        eprintln!("usage: example REPOSITORY SCRIPT");
        return Ok(ExitCode::from(2));
    };
    let address = env::var("COVE_ADDRESS").unwrap_or("127.0.0.1:7420".into());
    let cove = Cove::new(&address, &env::var("COVE_TOKEN").unwrap_or_default())?;
    let exit = run(&cove, &url, &script).await?;
    Ok(match exit.reason {
        Some(Reason::Code(code)) => ExitCode::from(code as u8),
        _ => ExitCode::FAILURE, // A signal, a timeout or a limit ended it.
    })
}

/// Returns how the script ended.
async fn run(cove: &Cove, url: &str, script: &str) -> Result<Exit, Status> {
    let id = format!("rust-{}", &once()[..8]);
    let name = format!("workspaces/{id}");
    let (workspaces, executions) = (&cove.workspaces, &cove.executions);
    // snippet:begin
    // A request is the same until it is answered, and is carried out once.
    let create = create_request(&id, url);
    again(async || workspaces.clone().create_workspace(create.clone()).await).await?;
    let ran = async {
        let start = start_request(&name, script);
        let started = again(async || executions.clone().start_execution(start.clone()).await);
        let execution = started.await?.execution.unwrap_or_default();
        let (exit, _) = cove.follow(&execution.name, print).await?; // By offset.
        save(cove, &name, script).await?;
        Ok(exit)
    }
    .await;
    delete(cove, &name).await; // What is not pushed is kept for a day.
    ran
    // snippet:end
}

fn print(data: &[u8]) -> io::Result<()> {
    stdout().write_all(data)?;
    stdout().flush()
}

/// Commits what the script changed, and pushes it.
async fn save(cove: &Cove, name: &str, script: &str) -> Result<(), Status> {
    let source = &cove.source;
    let commit = commit_request(name, script);
    match again(async || source.clone().create_commit(commit.clone()).await).await {
        Ok(made) => eprintln!("commit {}", made.commit.unwrap_or_default().id),
        Err(failure) if reason(&failure) == "ERROR_REASON_NOTHING_TO_COMMIT" => {
            eprintln!("nothing to commit");
            return Ok(());
        }
        Err(failure) => return Err(failure),
    }
    let push = PushBranchRequest {
        name: name.into(),
        request_id: once(),
        ..Default::default()
    };
    again(async || source.clone().push_branch(push.clone()).await).await?;
    Ok(())
}

/// A failure is only told: another may have come before it.
async fn delete(cove: &Cove, name: &str) {
    let workspaces = &cove.workspaces;
    let delete = DeleteWorkspaceRequest {
        name: name.into(),
        allow_missing: true,
        request_id: once(),
        ..Default::default()
    };
    let gone = again(async || workspaces.clone().delete_workspace(delete.clone()).await);
    if let Err(failure) = gone.await {
        eprintln!("{name} is still there: {failure}");
    }
}

fn create_request(id: &str, url: &str) -> CreateWorkspaceRequest {
    let spec = EnvironmentSpec {
        repository: url.into(),
        ..Default::default()
    };
    CreateWorkspaceRequest {
        workspace_id: id.into(),
        workspace: Some(Workspace {
            spec: Some(spec),
            ..Default::default()
        }),
        request_id: once(),
        ..Default::default()
    }
}

fn start_request(parent: &str, script: &str) -> StartExecutionRequest {
    let spec = ExecutionSpec {
        script: script.into(),
        ..Default::default()
    };
    StartExecutionRequest {
        parent: parent.into(),
        execution: Some(Execution {
            spec: Some(spec),
            ..Default::default()
        }),
        request_id: once(),
        ..Default::default()
    }
}

fn commit_request(parent: &str, message: &str) -> CreateCommitRequest {
    CreateCommitRequest {
        parent: parent.into(),
        commit: Some(Commit {
            message: message.into(),
            ..Default::default()
        }),
        request_id: once(),
        ..Default::default()
    }
}
